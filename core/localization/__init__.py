"""From a photo to places: search, re-ranking, refinement, probability."""
