"""Generation back ends behind one small protocol."""
