"""What is known about AI APIs: pure knowledge, as data where it can be data."""
