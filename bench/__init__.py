"""Benchmarks: Minerva beside llama-server and the raw C loop, on the same model and the same work."""
