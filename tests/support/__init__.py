"""What tests of the engine share: a rig around real servers, named stops, and a judge that shares no code with what it judges."""
