"""What `make containers` runs: docker-compose.yml as a whole on a real Docker engine, started, killed and looked at."""
