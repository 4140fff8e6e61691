"""Teaching: what stored runs become, so that the models of a step can learn from them."""
