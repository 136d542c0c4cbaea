"""The report as one HTML file: tables, the network as a graph, histograms with the grids over them."""
