"""From losses to `.grad`: the graph, the routes, the rows and the order of one update."""
