"""Training and evaluation of the bundled prior; not part of the app. ``python -m training -h``"""
