"""Reports on trained networks: figures as PNG, and one self-contained HTML page per report."""
