"""The applications that a Python programmer would write instead; run by the systems of the same names."""
