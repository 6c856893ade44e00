"""The worker role: claims runs and executes them. Import-light, because the guard process imports it too."""
