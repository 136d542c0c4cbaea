"""Tools of passes that rewrite a float graph: matching, folding into a layer, polynomials."""
