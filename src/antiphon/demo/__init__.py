"""`antiphon demo`: the tour, the server that it starts, and the connection that it breaks."""
