seed = 1
number = lambda { |limit| (seed = (seed * 1103515245 + 12345) % 2**31) / 256 % limit }
Point = Struct.new(:x, :y) { def +(o) = Point.new(x + o.x, y + o.y) }
p (1..150_000).map { |i| Point.new(i % 7, number.(100)) }.reduce(:+)
words = Hash.new(0)
150_000.times { words["w#{number.(800)}"] += 1 }
p words.sort_by { |k, v| [-v, k] }.first(3)
text = words.map { |k, v| "#{k}=#{v};" }.join * 20
p text.scan(/w(\d+)7=(\d)/).sum { |a, b| a.to_i + b.to_i }
p text.gsub(/w\d/) { |m| m.upcase }.count("W"), text.split(";").uniq.size
def fib(n) = n < 2 ? n : fib(n - 1) + fib(n - 2)
p fib(26)
p (1..400).inject(:*).to_s.size
