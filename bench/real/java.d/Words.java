import java.util.*;
import java.util.function.*;
import java.util.stream.*;

public class Words {
    sealed interface Shape permits Circle, Square {}
    record Circle(double radius) implements Shape {}
    record Square(double side) implements Shape {}

    enum Kind { SMALL, LARGE }

    static double area(Shape shape) {
        if (shape instanceof Circle c) return Math.PI * c.radius() * c.radius();
        if (shape instanceof Square s) return s.side() * s.side();
        throw new IllegalArgumentException();
    }

    static Kind kind(Shape shape) {
        return area(shape) > 10 ? Kind.LARGE : Kind.SMALL;
    }

    static class Cache<K extends Comparable<K>, V> {
        private final TreeMap<K, V> map = new TreeMap<>();

        V get(K key, Function<? super K, ? extends V> make) {
            return map.computeIfAbsent(key, make);
        }
    }

    public static void main(String[] args) {
        Map<String, Long> count = Stream.of("a b c a b a".split(" "))
            .collect(Collectors.groupingBy(Function.identity(), TreeMap::new, Collectors.counting()));
        Cache<String, Integer> cache = new Cache<>();
        int sum = 0;
        for (String word : count.keySet()) {
            sum += cache.get(word, w -> w.length() + count.get(w).intValue());
        }
        String text = switch (kind(new Circle(sum))) {
            case SMALL -> "small";
            case LARGE -> "large";
        };
        System.out.printf("%s %d %s%n", count, sum, text);
    }
}
