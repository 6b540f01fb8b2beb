"""Masked-diffusion language models: conversion, likelihoods, and what trains them. The sampling loop is an engine."""
