"""Recipes: fine-tunes to start from, run small on a CPU and at full size with one flag."""
