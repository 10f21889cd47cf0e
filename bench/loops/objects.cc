// C++ as people write it: virtual calls, containers, strings, closures, exceptions.
#include "loops.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

struct shape {
    virtual ~shape() = default;
    virtual uint64_t area() const = 0;
    virtual void grow(int by) = 0;
};

struct square : shape {
    int side;
    explicit square(int s) : side(s) {
    }
    uint64_t area() const override {
        return uint64_t(side) * uint64_t(side);
    }
    void grow(int by) override {
        side = (side + by) & 255;
    }
};

struct box : shape {
    int a, b;
    box(int x, int y) : a(x), b(y) {
    }
    uint64_t area() const override {
        return uint64_t(a) * uint64_t(b);
    }
    void grow(int by) override {
        a = (a + by) & 127;
        b ^= by;
    }
};

struct frame final : box {
    std::unique_ptr<shape> hole;
    frame(int x, int y, std::unique_ptr<shape> h) : box(x, y), hole(std::move(h)) {
    }
    uint64_t area() const override {
        return box::area() + hole->area();
    }
};

uint64_t virtual_calls() {
    std::vector<std::unique_ptr<shape>> all;
    uint64_t sum = 0;
    uint32_t r = 47;

    for (int i = 0; i < 300; i++) {
        int n = int(loop_random(&r) % 100);

        switch (n % 3) {
        case 0:
            all.push_back(std::make_unique<square>(n));
            break;
        case 1:
            all.push_back(std::make_unique<box>(n, i));
            break;
        default:
            all.push_back(std::make_unique<frame>(n, i, std::make_unique<square>(n)));
        }
    }
    for (int t = 0; t < 60; t++)
        for (auto &s : all) {
            sum += s->area();
            s->grow(t);
        }
    return sum;
}

uint64_t ordered_map() {
    std::map<uint32_t, uint32_t> m;
    uint32_t r = 53;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < 6000; i++)
        m[loop_random(&r) % 4000] += i;
    for (int i = 0; i < 6000; i++) {
        auto at = m.lower_bound(loop_random(&r) % 4000);

        if (at != m.end())
            sum += at->second;
    }
    for (auto &e : m)
        sum = sum * 3 + e.second;
    return sum;
}

uint64_t string_map() {
    std::unordered_map<std::string, int> m;
    uint32_t r = 59;
    uint64_t sum = 0;

    for (int i = 0; i < 5000; i++) {
        std::string key =
            "key" + std::to_string(loop_random(&r) % 900) + "/longer than small";

        m[key] += i;
    }
    for (auto &e : m)
        sum += e.first.size() * uint64_t(e.second);
    return sum;
}

uint64_t sort_records() {
    struct record {
        std::string name;
        int score;
    };
    std::vector<record> v;
    uint32_t r = 61;
    uint64_t sum = 0;

    for (int i = 0; i < 2000; i++)
        v.push_back({std::to_string(loop_random(&r) % 500), i});
    std::sort(v.begin(), v.end(), [](const record &a, const record &b) {
        return a.name != b.name ? a.name < b.name : a.score > b.score;
    });
    for (auto &e : v)
        sum = sum * 7 + uint64_t(e.score);
    return sum;
}

uint64_t closures() {
    std::vector<std::function<int(int)>> steps;
    uint64_t sum = 0;

    for (int i = 0; i < 16; i++) {
        if (i % 2)
            steps.emplace_back([i](int x) { return x * 3 + i; });
        else
            steps.emplace_back(
                [i, k = i * 5L](int x) { return int((x ^ k) & 0xffff) + i; });
    }
    for (int t = 0; t < 2000; t++) {
        int x = t;

        for (auto &s : steps)
            x = s(x) & 0xfffff;
        sum += uint64_t(x);
    }
    return sum;
}

[[gnu::noinline]] int checked(int n, int depth) {
    if (depth)
        return checked(n, depth - 1) + 1;
    if (n % 4 == 0)
        throw std::runtime_error("four");
    return n;
}

uint64_t exceptions() {
    uint64_t sum = 0;

    for (int i = 0; i < 400; i++)
        try {
            sum += uint64_t(checked(i, 5));
        } catch (const std::runtime_error &e) {
            sum += uint64_t(e.what()[0]);
        }
    return sum;
}

} // namespace

const struct loop loops_objects[] = {
    {"virtual", virtual_calls}, {"stdmap", ordered_map}, {"strmap", string_map},
    {"records", sort_records},  {"closures", closures},  {"throw", exceptions},
    {nullptr, nullptr}};
