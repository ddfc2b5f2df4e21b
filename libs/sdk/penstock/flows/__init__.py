"""What each method of the clients does, written once for both: generators over effects."""
