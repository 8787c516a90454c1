"""From tokens to what the tasks fit on."""
