"""The stages of a run, one module each: read inputs, call one function of a method, write outputs."""
