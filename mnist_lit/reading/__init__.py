"""How a picture is read: decode -> ink -> detector -> classifier -> result."""
