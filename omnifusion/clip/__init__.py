"""From what a visitor gives to what the method works on: shots, registered exemplars, luminance."""
