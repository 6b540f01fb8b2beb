"""Problems made harder without another answer, and what that does to a checkpoint: scope by severity."""
