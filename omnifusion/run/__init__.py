"""From a request to a finished folder: segments, workers, stored colors, export."""
