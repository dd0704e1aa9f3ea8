"""The command `refiner`: one's own videos refined, without a cluster, a registry or Ray."""
