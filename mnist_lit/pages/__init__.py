"""Pages about trained networks: each is one HTML file that needs nothing from outside."""
