"""What happens between a request and its answer: admission, the queue, tokenizing and inference in threads."""
