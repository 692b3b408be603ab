"""From a prepared clip to a finished folder: units of work, who does them, what is kept, what is delivered."""
