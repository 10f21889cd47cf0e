local seed = 1
local function number(limit)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return (seed >> 8) % limit
end
local queens = 0
local function place(n, row, cols, up, down)
    if row > n then queens = queens + 1 return end
    for c = 1, n do
        if not cols[c] and not up[row + c] and not down[row - c] then
            cols[c], up[row + c], down[row - c] = true, true, true
            place(n, row + 1, cols, up, down)
            cols[c], up[row + c], down[row - c] = nil, nil, nil
        end
    end
end
place(9, 1, {}, {}, {})
print(queens)
local words = {}
for i = 1, 300000 do
    local w = "w" .. number(900)
    words[w] = (words[w] or 0) + 1
end
local names = {}
for w in pairs(words) do names[#names + 1] = w end
table.sort(names, function(a, b) return words[a] > words[b] or words[a] == words[b] and a < b end)
print(#names, names[1], words[names[1]])
local text = table.concat(names, " ")
local found = 0
for i = 1, 40 do for d in text:gmatch("w(%d)%d?7") do found = found + tonumber(d) end end
print(found, #text:gsub("w1", "one"))
local function range(n) return coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end end) end
local sum = 0.0
for i in range(500000) do sum = sum + 1 / i end
print(string.format("%.9f", sum))
