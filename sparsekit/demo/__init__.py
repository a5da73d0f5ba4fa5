"""The main job end to end: a teacher, a sparse student, and what the user gains."""
