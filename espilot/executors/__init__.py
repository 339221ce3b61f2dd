"""The executors of normal and merge jobs; event jobs are run by the workers and their queue."""
