"""Tables of other libraries' tensor names, a file a family of models."""
