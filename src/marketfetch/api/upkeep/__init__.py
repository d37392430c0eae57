"""Work on what a store holds: bring it up to now, fetch it again, export it."""
