// A JSON schema validator for the keywords that oto's schemas use; it throws at any other.

const TYPES = {
  object: (v) => v !== null && typeof v === 'object' && !Array.isArray(v),
  array: Array.isArray,
  string: (v) => typeof v === 'string',
  boolean: (v) => typeof v === 'boolean',
  integer: Number.isInteger,
  number: (v) => typeof v === 'number',
  null: (v) => v === null,
};

const RULES = {
  title: () => true,
  description: () => true,
  $schema: () => true,
  $defs: () => true,
  $ref: (rule, v, at) => {
    const [file, path] = rule.split('#');
    const root = file === '' ? at.root : at.files[file];
    const schema = path.slice(1).split('/').reduce((part, name) => part[name], root);
    return accepts(schema, v, root, at.files);
  },
  oneOf: (rule, v, at) => rule.filter((schema) => accepts(schema, v, at.root, at.files)).length === 1,
  const: (rule, v) => rule === v,
  enum: (rule, v) => rule.includes(v),
  type: (rule, v) => [rule].flat().some((type) => TYPES[type](v)),
  required: (rule, v) => !TYPES.object(v) || rule.every((name) => name in v),
  properties: (rule, v, at) =>
    !TYPES.object(v) ||
    Object.entries(rule).every(([name, schema]) => !(name in v) || accepts(schema, v[name], at.root, at.files)),
  additionalProperties: (rule, v, at) => {
    if (rule !== false) throw new Error('the schema has an additionalProperties that is not false, unknown here');
    return !TYPES.object(v) || Object.keys(v).every((name) => Object.hasOwn(at.schema.properties, name));
  },
  items: (rule, v, at) => !Array.isArray(v) || v.every((item) => accepts(rule, item, at.root, at.files)),
  minimum: (rule, v) => typeof v !== 'number' || v >= rule,
  maximum: (rule, v) => typeof v !== 'number' || v <= rule,
  minItems: (rule, v) => !Array.isArray(v) || v.length >= rule,
  maxItems: (rule, v) => !Array.isArray(v) || v.length <= rule,
  minLength: (rule, v) => typeof v !== 'string' || [...v].length >= rule,
  maxLength: (rule, v) => typeof v !== 'string' || [...v].length <= rule,
};

/** Whether `schema`, a part of the schema `root`, accepts a value; `files` are the schemas that it refers to by name. */
export function accepts(schema, value, root, files = {}) {
  return Object.entries(schema).every(([keyword, rule]) => {
    if (!Object.hasOwn(RULES, keyword)) throw new Error(`the schema uses the keyword "${keyword}", unknown here`);
    return RULES[keyword](rule, value, { root, files, schema });
  });
}
