"""Pathways, LangGraph graph, runner, configuration and command line."""
