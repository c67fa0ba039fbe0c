"""How fast ticks land, beside other ways of landing the same topic in the same stores: `make bench`."""
