package main

import "strings"

func count(text string) map[string]int {
	words := make(map[string]int)
	for _, word := range strings.Fields(text) {
		words[word]++
	}
	return words
}
