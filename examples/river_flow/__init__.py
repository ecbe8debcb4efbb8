"""Eight gauges of one river, 48 hours ahead: eight losses whose scales differ by a factor of five thousand."""
