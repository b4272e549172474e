"""Neighbour replay: does a method learn through its mechanisms alone?"""
