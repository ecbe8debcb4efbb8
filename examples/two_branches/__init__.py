"""A convolutional and a recurrent network feed one classifier: what is seen and what is heard make one number."""
