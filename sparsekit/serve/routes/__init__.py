"""The routes: what is asked, to texts, to the engine; what it computed, to what is answered."""
