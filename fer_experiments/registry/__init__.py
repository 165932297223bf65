"""From the best trial to a model in use: refit, assemble, test once, gate, register, go back."""
