"""The SQL files that make the store, applied once each in the order of their numbers. A shipped file never changes."""
