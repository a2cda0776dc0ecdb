"""Tiles of the map: one, rectangles of them, and the zooms they lie at."""
