"""Language models run by vLLM, in a process of their own."""
