"""Read the digits in a picture: decode -> ink -> detector -> classifier -> result."""
