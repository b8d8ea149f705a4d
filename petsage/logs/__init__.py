"""The log: from any stdlib logger to lines of JSON in every sink, with an account of each."""
