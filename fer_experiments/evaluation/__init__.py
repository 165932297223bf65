"""How good a result is: metrics, how sure they are, and figures."""
