"""Dictionaries, classes, generators and strings."""
import collections
import heapq


class Node:
    __slots__ = ("key", "left", "right")

    def __init__(self, key):
        self.key, self.left, self.right = key, None, None


def insert(root, key):
    while root.key != key:
        side = "left" if key < root.key else "right"
        child = getattr(root, side)
        if child is None:
            setattr(root, side, Node(key))
            return
        root = child


def walk(node):
    if node:
        yield from walk(node.left)
        yield node.key
        yield from walk(node.right)


seed = 1


def number(limit):
    global seed
    seed = (seed * 1103515245 + 12345) % 2**31
    return (seed >> 8) % limit


root = Node(50000)
for _ in range(30000):
    insert(root, number(100000))
print(sum(i * key for i, key in enumerate(walk(root))))
words = collections.Counter(f"w{number(700)}" for _ in range(150000))
print(words.most_common(3))
heap = []
for _ in range(40000):
    heapq.heappush(heap, (number(1000), number(10)))
print(sum(heapq.heappop(heap)[0] * i for i in range(40000)))
print(len(" ".join(f"{k}={v:05d}" for k, v in sorted(words.items())).replace("w", "word ").split()))
print(hex(pow(3, 20011, 2**521 - 1) % 2**64), sum(x * x % 7 for x in range(500000)))
