package main

import (
	"fmt"
	"os"
	"sort"
)

func main() {
	words := count("the quick brown fox jumps over the lazy dog and the cat")
	names := make([]string, 0, len(words))
	for name := range words {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		if words[names[i]] != words[names[j]] {
			return words[names[i]] > words[names[j]]
		}
		return names[i] < names[j]
	})
	for _, name := range names {
		fmt.Fprintf(os.Stdout, "%s %d\n", name, words[name])
	}
}
