"""Gene regulatory networks: scores of pairs, edges, and where they are stored."""
