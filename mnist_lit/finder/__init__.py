"""A small network that looks at a whole picture and says where digits are, and which."""
